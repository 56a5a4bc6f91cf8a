"""From run directories to tables, figures, statistics and a report. No torch is imported here."""
