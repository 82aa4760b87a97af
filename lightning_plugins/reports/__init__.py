"""The only place that writes HTML or imports matplotlib."""
