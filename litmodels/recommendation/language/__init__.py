"""Language models for planning: prompts, servers, local models, replies, and title lookup."""
