"""Links by which a recipient unsubscribes: made as mail leaves, and what becomes of them when somebody follows one."""
