"""Networks and mathematics without Lightning."""
