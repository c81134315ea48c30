"""Values and pure rules: what operations take and return, names, policies, the life of an entry. Private."""
