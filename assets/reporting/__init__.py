"""What people read of measurements: files and pages made from results."""
