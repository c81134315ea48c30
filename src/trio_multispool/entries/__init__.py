"""One entry: enqueue it, check it out, work on it, settle it. Private; its names are in `trio_multispool`."""
