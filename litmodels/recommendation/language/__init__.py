"""What it takes to let a language model plan: prompts, a server, its replies, and grounding."""
