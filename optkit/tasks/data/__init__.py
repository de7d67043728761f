"""Reading and checking data: files, tables, classes, the hub, and the sample that ships with optkit."""
