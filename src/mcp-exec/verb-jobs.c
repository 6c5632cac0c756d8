/* jobs, result, cancel: calls that don't end with their caller. */

#include <stdio.h>

#include "bus/errors.h"
#include "mcp-exec/job.h"
#include "mcp-exec/output.h"
#include "mcp-exec/state.h"
#include "mcp-exec/tools.h"

/* By its id, or by the beginning of it that no other has */
static int status_find_job(const ServiceState *state, const char *id, const JobInfo **ret) {
        *ret = NULL;
        for (size_t i = 0; i < state->n_jobs; i++)
                if (strncmp(state->jobs[i].id, id, strlen(id)) == 0) {
                        if (*ret)
                                return fail(STATUS_USAGE, "more than one job begins with %s", id);
                        *ret = &state->jobs[i];
                }

        return *ret && *id ? STATUS_OK : fail(STATUS_UNKNOWN, "no job is named %s; mcp-exec jobs shows them", id);
}

static Color job_color(const char *state) {
        return streq(state, "succeeded") ? COLOR_GREEN : streq(state, "failed") ? COLOR_RED : COLOR_NONE;
}

static void print_json(const ServiceState *state) {
        Buffer text = {};

        must(buffer_append_string(&text, "["));
        for (size_t i = 0; i < state->n_jobs; i++) {
                const JobInfo *job = &state->jobs[i];

                add_json_string(&text, i > 0 ? ",{\"id\":" : "{\"id\":", job->id);
                add_json_string(&text, ",\"server\":", job->server);
                add_json_string(&text, ",\"method\":", job->method);
                add_json_string(&text, ",\"tool\":", job->tool);
                add_json_string(&text, ",\"state\":", job->state);
                must(buffer_append_string(&text, ",\"started\":"));
                must(buffer_append_number(&text, job->started));
                must(buffer_append_string(&text, ",\"finished\":"));
                must(buffer_append_number(&text, job->finished));
                must(buffer_append_string(&text, ",\"result_size\":"));
                must(buffer_append_number(&text, job->result_size));
                must(buffer_append_string(&text, "}"));
        }
        must(buffer_append_string(&text, "]"));
        put_json(stdout, (JsonSlice){ buffer_data(&text), buffer_size(&text) });
        buffer_done(&text);
}

int verb_jobs(Cli *cli, int argc _unused_, char *argv[] _unused_) {
        static const char *const titles[] = { "JOB", "STATE", "TIME", "RESULT", "SERVER", "CALL" };
        Table table = { .titles = titles, .n_columns = ELEMENTSOF(titles), .right = 1 << 2 | 1 << 3 };
        ServiceState state;
        int status;

        status = status_fetch_state(cli, &state);
        if (status != STATUS_OK)
                return status;

        for (size_t i = 0; i < state.n_jobs && !cli->json; i++) {
                const JobInfo *job = &state.jobs[i];

                table_addf(&table, COLOR_NONE, "%.12s", job->id);
                table_add(&table, job_color(job->state), job->state);
                table_add(&table, COLOR_NONE,
                          format_duration((job->finished > 0 ? job->finished : now_usec()) - job->started));
                table_add(&table, COLOR_NONE, job->result_size > 0 ? format_bytes(job->result_size) : "");
                table_add(&table, COLOR_NONE, job->server);
                table_add(&table, COLOR_NONE, *job->tool ? job->tool : job->method);
        }
        if (cli->json)
                print_json(&state);
        else if (state.n_jobs > 0)
                table_print(&table, "");
        else if (!cli->quiet)
                note("mcp-exec: no jobs");

        table_done(&table);
        state_done(&state);
        return STATUS_OK;
}

int verb_result(Cli *cli, int argc _unused_, char *argv[]) {
        sd_bus_error error = SD_BUS_ERROR_NULL;
        _cleanup_(freep) char *result = NULL;
        ServiceState state;
        const JobInfo *job;
        int r, status;

        status = status_fetch_state(cli, &state);
        if (status != STATUS_OK)
                return status;

        status = status_find_job(&state, argv[1], &job);
        if (status == STATUS_OK) {
                r = job_result(cli, job->path, &error, &result);
                if (r < 0)
                        status = status_bus_error(cli, &error, r);
                else if (*job->tool || streq(job->method, "tools/call"))
                        status = status_show_result(cli, result);
                else
                        put_json(stdout, json_open(result));
        }

        sd_bus_error_free(&error);
        state_done(&state);
        return status;
}

int verb_cancel(Cli *cli, int argc, char *argv[]) {
        ServiceState state;
        int status;

        status = status_fetch_state(cli, &state);
        for (int i = 1; i < argc && status == STATUS_OK; i++) {
                sd_bus_error error = SD_BUS_ERROR_NULL;
                const JobInfo *job;
                int r;

                status = status_find_job(&state, argv[i], &job);
                if (status == STATUS_OK) {
                        sd_bus_message *message = new_call(cli, job->path, BUS_NAME ".Job", "Cancel");

                        r = call_and_wait(cli, message, cli->timeout, &error, NULL);
                        if (r < 0)
                                status = status_bus_error(cli, &error, r);
                        sd_bus_message_unref(message);
                }
                sd_bus_error_free(&error);
        }

        state_done(&state);
        return status;
}
