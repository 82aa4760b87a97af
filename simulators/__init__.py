"""Stand-alone physics simulators; none of them needs Lightning."""
