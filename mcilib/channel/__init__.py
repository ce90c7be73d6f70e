"""The control channel: commands of the participant to the agent that runs on a state folder.

A Unix socket in that folder, for the same user and for who can read the secret beside it; no polling. What is on the
wire is in docs/reference/control-channel.md.
"""
