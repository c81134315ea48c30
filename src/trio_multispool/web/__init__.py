"""A dashboard for spools, in the browser: an application that can be mounted, and what `multispool web` serves."""
