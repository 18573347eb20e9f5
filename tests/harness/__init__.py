"""What tests are made with: servers, replicas, the command, waiting, and values that many of them need."""
