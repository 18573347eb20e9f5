"""What an upgrade from 0.1.0 meets: its store, its replicas, its programs. `data/` is made by `make_data.py`."""
