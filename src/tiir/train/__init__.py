"""Fine-tuning of dual encoders."""
