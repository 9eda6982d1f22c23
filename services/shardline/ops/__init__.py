"""What every process needs: settings, logs, metrics, lifecycle, allocator, CPU count."""
