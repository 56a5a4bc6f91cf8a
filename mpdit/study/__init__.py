"""From a YAML grid to runs, their submission and their status. No torch is imported here."""
