"""The live view, `multispool top`. Private."""
