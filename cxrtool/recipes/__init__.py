"""Published systems as chains of commands, and the tables that their papers print."""
