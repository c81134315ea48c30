"""The commands of `multispool`, one file each. Private."""
