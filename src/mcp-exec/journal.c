/* What a server wrote to its stderr, out of the journal. */

#include <stdio.h>
#include <systemd/sd-journal.h>
#include <time.h>

#include "broker/message-ids.h"
#include "mcp-exec/output.h"
#include "mcp-exec/state.h"

static void get_field(sd_journal *journal, const char *name, JsonSlice *ret) {
        size_t prefix = strlen(name) + 1, size;
        const void *data;

        *ret = (JsonSlice){};
        if (sd_journal_get_data(journal, name, &data, &size) >= 0 && size >= prefix)
                *ret = (JsonSlice){ (const char *)data + prefix, size - prefix };
}

static void show_entry(const Cli *cli, sd_journal *journal) {
        char when[32] = "";
        uint64_t usec = 0;
        JsonSlice message, pid;
        struct tm local;
        time_t seconds;

        (void)sd_journal_get_realtime_usec(journal, &usec);
        get_field(journal, "MCP_EXEC_WORKER_PID", &pid);
        get_field(journal, "MESSAGE", &message);
        if (!message.data)
                message = (JsonSlice){ "", 0 };

        if (cli->json) {
                Buffer line = {};

                must(buffer_append_string(&line, "{\"timestamp\":"));
                must(buffer_append_number(&line, usec));
                must(buffer_append_string(&line, ",\"pid\":"));
                must(pid.data ? buffer_append(&line, pid.data, pid.size) : buffer_append_string(&line, "null"));
                must(buffer_append_string(&line, ",\"message\":"));
                must(json_append_quoted(&line, message.data, message.size));
                must(buffer_append_string(&line, "}\n"));
                put_text(stdout, buffer_data(&line), buffer_size(&line));
                buffer_done(&line);
                return;
        }

        seconds = usec / USEC_PER_SEC;
        if (localtime_r(&seconds, &local))
                (void)strftime(when, sizeof(when), "%b %d %H:%M:%S", &local);
        printf("%s%s%s", color_on(COLOR_DIM), when, color_off(COLOR_DIM));
        if (pid.data)
                printf(" [%.*s]", (int)pid.size, pid.data);
        (void)fputs(" ", stdout);
        put_lines(stdout, message.data, message.size);
}

static int add_matches(sd_journal *journal, const char *server, bool whole) {
        static const char *const events[] = {
                "MESSAGE_ID=" MESSAGE_WORKER_STARTED,
                "MESSAGE_ID=" MESSAGE_WORKER_EXITED,
                "MESSAGE_ID=" MESSAGE_CRASH_LOOP,
        };
        char match[128];
        int r;

        (void)snprintf(match, sizeof(match), "SYSLOG_IDENTIFIER=mcp-exec/%s", server);
        r = sd_journal_add_match(journal, match, 0);
        if (r < 0 || !whole)
                return r;

        (void)snprintf(match, sizeof(match), "MCP_EXEC_SERVER=%s", server);
        r = sd_journal_add_disjunction(journal);
        if (r >= 0)
                r = sd_journal_add_match(journal, match, 0);
        for (size_t i = 0; i < ELEMENTSOF(events) && r >= 0; i++)
                r = sd_journal_add_match(journal, events[i], 0);
        return r;
}

static int follow_journal(const Cli *cli, sd_journal *journal) {
        int r;

        for (;;) {
                while ((r = sd_journal_next(journal)) > 0)
                        show_entry(cli, journal);
                if (r < 0)
                        return r;
                if (fflush(stdout) != 0)
                        return -errno;
                r = sd_journal_wait(journal, UINT64_MAX);
                if (r < 0 && r != -EINTR)
                        return r;
        }
}

int status_show_journal(Cli *cli, const char *server, bool whole, unsigned lines, bool follow, unsigned *ret_n) {
        sd_journal *journal = NULL;
        unsigned n = 0;
        int r;

        r = sd_journal_open(&journal, SD_JOURNAL_LOCAL_ONLY);
        if (r >= 0)
                r = add_matches(journal, server, whole);
        if (r >= 0)
                r = sd_journal_seek_tail(journal);
        if (r >= 0)
                r = sd_journal_previous_skip(journal, lines);
        for (; r > 0; r = sd_journal_next(journal), n++)
                show_entry(cli, journal);
        if (r >= 0 && follow)
                r = follow_journal(cli, journal);

        if (ret_n)
                *ret_n = n;
        sd_journal_close(journal);
        return r < 0 ? fail(STATUS_UNREACHABLE, "the journal can't be read: %s", strerror(-r)) : STATUS_OK;
}
