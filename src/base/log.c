#include "base/log.h"

#include <stdio.h>
#include <sys/stat.h>
#include <sys/uio.h>
#define SD_JOURNAL_SUPPRESS_LOCATION
#include <systemd/sd-daemon.h>
#include <systemd/sd-journal.h>

#define LOG_FIELDS_MAX 12
#define LOG_LINE_MAX 8192

static int max_level = LOG_INFO;
static bool to_journal;

/* systemd.exec(5): $JOURNAL_STREAM holds device and inode of stderr where that goes to the journal. */
static bool stderr_is_journal(void) {
        const char *value = getenv("JOURNAL_STREAM");
        unsigned long long device, inode;
        struct stat st;

        return value && sscanf(value, "%llu:%llu", &device, &inode) == 2 && fstat(STDERR_FILENO, &st) >= 0 &&
               st.st_dev == device && st.st_ino == inode;
}

void log_open(int level) {
        max_level = level;
        to_journal = stderr_is_journal();
}

bool log_enabled(int level) {
        return level <= max_level;
}

static void write_text(int level, const char *message) {
        static const char *const words[] = {
                [LOG_ERR] = "error: ", [LOG_WARNING] = "warning: ", [LOG_DEBUG] = "debug: "
        };
        char line[LOG_LINE_MAX + 64];
        const char *word = level >= 0 && (size_t)level < ELEMENTSOF(words) && words[level] ? words[level] : "";
        int n;

        /* One write a record, so that records of several processes on one terminal stay whole. */
        n = snprintf(line, sizeof(line), "%s: %s%s\n", program_invocation_short_name, word, message);
        if (n > 0 && write(STDERR_FILENO, line, MIN((size_t)n, sizeof(line) - 1)) < 0)
                return; /* nobody is left to tell */
}

void log_fields(int level, const char *const *fields, const char *format, ...) {
        char message[LOG_LINE_MAX + sizeof("MESSAGE=")] = "MESSAGE=", priority[] = "PRIORITY=6";
        struct iovec iov[LOG_FIELDS_MAX];
        size_t n = 0;
        int saved = errno;
        va_list ap;

        if (!log_enabled(level))
                return;

        va_start(ap, format);
        (void)vsnprintf(message + strlen("MESSAGE="), sizeof(message) - strlen("MESSAGE="), format, ap);
        va_end(ap);

        if (to_journal) {
                priority[strlen("PRIORITY=")] = '0' + level;
                iov[n++] = (struct iovec){ message, strlen(message) };
                iov[n++] = (struct iovec){ priority, strlen(priority) };
                for (const char *const *f = fields; f && *f && n < LOG_FIELDS_MAX; f++)
                        iov[n++] = (struct iovec){ (void *)*f, strlen(*f) };
                if (sd_journal_sendv(iov, n) >= 0) {
                        errno = saved;
                        return;
                }
        }

        write_text(level, message + strlen("MESSAGE="));
        errno = saved;
}

int log_level_from_string(const char *word) {
        static const struct {
                const char *word;
                int level;
        } table[] = {
                { "error", LOG_ERR }, { "warning", LOG_WARNING }, { "notice", LOG_NOTICE },
                { "info", LOG_INFO }, { "debug", LOG_DEBUG },
        };

        for (size_t i = 0; i < ELEMENTSOF(table); i++)
                if (streq(word, table[i].word))
                        return table[i].level;

        return -1;
}
