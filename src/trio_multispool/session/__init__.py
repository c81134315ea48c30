"""One open spool, as its handles share it: the store, the way into threads, codecs, hooks, changes. Private."""
