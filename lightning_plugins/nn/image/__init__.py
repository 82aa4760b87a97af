"""The papers' image networks for 8 to 64 pixel inputs."""
