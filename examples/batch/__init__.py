"""Jobs of AWS Batch, launched and watched by an async executor."""
