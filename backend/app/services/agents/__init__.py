"""What is done with agents, by kind of use case; `AgentService` has all of it."""
