"""Data generation, supervised fine-tuning and reinforcement learning for the small audio model."""
