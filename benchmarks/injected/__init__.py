"""Real causes of slowness, put into a real process one after the other: are they named right, and is quiet quiet?"""
