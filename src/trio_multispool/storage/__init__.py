"""What a store does, in bytes and names, whatever it keeps them in. Blocking: nothing here awaits. Private."""
