"""Images, their subclasses and their splits."""
