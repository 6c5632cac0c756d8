#pragma once

/* MESSAGE_ID= of the records that programs may look for (journal-fields(7)); systemd/mcp-exec.catalog explains them. */

#define MESSAGE_WORKER_STARTED "6c97e5c1a0f74b0387fcb1f8f3a08236"
#define MESSAGE_WORKER_EXITED "dbf5da595cb941da9c0d8ed8ab41d955"
#define MESSAGE_CRASH_LOOP "0abdc9a233d64f8092978e9a0c46250c"
#define MESSAGE_CALL "2776100ad71a41ed8ebfd63fbede6d14"
#define MESSAGE_TOOLS_CHANGED "d26288681212466fab7e88fa92026d11"
