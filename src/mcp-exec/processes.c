/* Memory and processor time of workers. Each is a session of its own, as a unit or without systemd, so that what
 * belongs to it is found by one look at /proc. */

#include <ctype.h>
#include <dirent.h>
#include <stdio.h>

#include "mcp-exec/state.h"

typedef struct Process {
        uint32_t session;
        uint64_t memory, cpu;
} Process;

static Process *processes;
static size_t n_processes;

static bool read_process(const char *pid, Process *ret) {
        unsigned long long user, kernel;
        const char *after_name;
        char path[64], text[1024];
        unsigned session;
        long pages;
        FILE *file;
        size_t n;

        (void)snprintf(path, sizeof(path), "/proc/%.20s/stat", pid);
        file = fopen(path, "re");
        if (!file)
                return false;
        n = fread(text, 1, sizeof(text) - 1, file);
        (void)fclose(file);
        text[n] = 0;

        /* proc(5): the name can hold anything, parentheses too. Fields 6, 14, 15 and 24. */
        after_name = strrchr(text, ')');
        if (!after_name || sscanf(after_name + 1,
                                  " %*c %*d %*d %u %*d %*d %*u %*u %*u %*u %*u %llu %llu %*d %*d %*d %*d %*d %*d %*u "
                                  "%*u %ld",
                                  &session, &user, &kernel, &pages) != 4)
                return false;

        *ret = (Process){ session, (uint64_t)MAX(pages, 0L) * sysconf(_SC_PAGESIZE),
                          (user + kernel) * USEC_PER_SEC / sysconf(_SC_CLK_TCK) };
        return true;
}

void processes_read(void) {
        DIR *folder = opendir("/proc");
        size_t allocated = 0;
        struct dirent *entry;

        free(processes);
        processes = NULL;
        n_processes = 0;

        while (folder && (entry = readdir(folder))) {
                if (!isdigit((unsigned char)entry->d_name[0]))
                        continue;
                if (n_processes == allocated) {
                        allocated = MAX(allocated * 2, (size_t)256);
                        processes = realloc(processes, allocated * sizeof(Process));
                        if (!processes)
                                out_of_memory();
                }
                n_processes += read_process(entry->d_name, &processes[n_processes]);
        }
        if (folder)
                (void)closedir(folder);
}

uint64_t worker_memory(uint32_t pid) {
        uint64_t memory = 0;

        for (size_t i = 0; i < n_processes && pid > 0; i++)
                if (processes[i].session == pid)
                        memory += processes[i].memory;
        return memory;
}

uint64_t worker_cpu(uint32_t pid) {
        uint64_t cpu = 0;

        for (size_t i = 0; i < n_processes && pid > 0; i++)
                if (processes[i].session == pid)
                        cpu += processes[i].cpu;
        return cpu;
}
