"""Real programs of a mail platform under configstore: fetchmail and Dovecot, certbot, Pebble and nginx."""
