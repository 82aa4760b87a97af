"""Words that attacks leave alone."""

# The English list that NLTK publishes, as TextAttack's recipes use it: pronouns, auxiliaries,
# prepositions, contractions and their parts.
_PRONOUNS = """
i me my myself we our ours ourselves you you're you've you'll you'd your yours yourself yourselves
he him his himself she she's her hers herself it it's its itself they them their theirs themselves
what which who whom this that that'll these those
"""
_AUXILIARIES = """
am is are was were be been being have has had having do does did doing can will just don don't
should should've ain aren aren't couldn couldn't didn didn't doesn doesn't hadn hadn't hasn hasn't
haven haven't isn isn't ma mightn mightn't mustn mustn't needn needn't shan shan't shouldn shouldn't
wasn wasn't weren weren't won won't wouldn wouldn't s t d ll m o re ve y
"""
_OTHERS = """
a an the and but if or because as until while of at by for with about against between into through
during before after above below to from up down in out on off over under again further then once
here there when where why how all any both each few more most other some such no nor not only own
same so than too very now
"""
STOP_WORDS = frozenset((_PRONOUNS + _AUXILIARIES + _OTHERS).split())
