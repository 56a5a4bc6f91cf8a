"""What a study's numbers allow to say."""
