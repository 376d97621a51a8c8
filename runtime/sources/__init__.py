"""Where frames come from: files, folders, feature arrays, cameras, and faults injected on purpose."""
