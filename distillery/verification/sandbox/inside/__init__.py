"""What runs inside the sandbox: standard library only, in an empty environment."""
