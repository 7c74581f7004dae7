"""What is built on a wait: connecting, shared connections, pools, notifications."""
