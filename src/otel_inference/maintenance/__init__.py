"""What may be done about a finding, how often, what was done, and whether it helped."""
