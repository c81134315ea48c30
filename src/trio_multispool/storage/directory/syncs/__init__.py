"""What is synced to the disk, when, and together with what. Private."""
