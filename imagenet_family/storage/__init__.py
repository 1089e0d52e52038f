"""Where bytes lie: local files and object stores, whole-or-nothing writes, locks, reads."""
