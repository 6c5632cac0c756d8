"""What the bundled executors are built of. docs/executors.md says what they promise, `python`, `sh` and `node` are their mains.

Modules of Python's own are imported where a start with MCP_EXEC_ISOLATION=fresh can't do without them, and by name
(`from os import read`), so that code which patches them doesn't reach what runs beside it.
"""

import builtins

# Functions look built-in names up in what their module calls __builtins__ when they are defined: code that patches
# those of all doesn't reach ours.
own_builtins = vars(builtins).copy()
