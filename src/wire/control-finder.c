#include <string.h>

#include "base/macro.h"
#include "wire/protocol.h"

enum { KEY_OTHER, KEY_TYPE, KEY_RESPONSE, KEY_REQUEST_ID };

/* The levels that count: the message's members, and those of its member response */
static bool at_level(const ControlIdFinder *finder) {
        return finder->depth == 1 || (finder->depth == 2 && finder->in_response);
}

static bool token_is(const ControlIdFinder *finder, const char *word) {
        return finder->token_size == strlen(word) && memcmp(finder->token, word, finder->token_size) == 0;
}

static void string_done(ControlIdFinder *finder) {
        ControlIdLevel *level = &finder->levels[finder->depth - 1];

        if (!level->behind_colon) {
                level->key = token_is(finder, "request_id")                       ? KEY_REQUEST_ID
                             : finder->depth == 1 && token_is(finder, "type")     ? KEY_TYPE
                             : finder->depth == 1 && token_is(finder, "response") ? KEY_RESPONSE
                                                                                  : KEY_OTHER;
                /* The last member of a name counts. */
                if (level->key == KEY_REQUEST_ID) {
                        level->has_id = true;
                        level->ours = false;
                } else if (level->key == KEY_RESPONSE)
                        finder->levels[1] = (ControlIdLevel){};
        } else if (level->key == KEY_TYPE)
                finder->answer = token_is(finder, "control_response");
        else if (level->key == KEY_REQUEST_ID)
                level->ours = finder->token[0] != '0' &&
                              json_unsigned((JsonSlice){ finder->token, finder->token_size }, &level->number);
}

static void open_container(ControlIdFinder *finder, char c) {
        if (++finder->depth == 2)
                finder->in_response =
                        c == '{' && finder->levels[0].behind_colon && finder->levels[0].key == KEY_RESPONSE;
}

void control_id_finder_feed(ControlIdFinder *finder, const char *data, size_t size) {
        for (size_t i = 0; i < size; i++) {
                char c = data[i];

                if (finder->depth == 0 && c != ' ' && c != '\t' && c != '\r') {
                        finder->more = finder->more || finder->began || c != '{';
                        finder->began = true;
                }

                if (finder->in_string) {
                        if (finder->escaped)
                                finder->escaped = false;
                        else if (c == '\\')
                                finder->escaped = true;
                        else if (c == '"') {
                                finder->in_string = false;
                                if (at_level(finder))
                                        string_done(finder);
                                continue;
                        }
                        if (finder->token_size < sizeof(finder->token))
                                finder->token[finder->token_size++] = c;
                        continue;
                }

                switch (c) {
                case '"':
                        finder->in_string = true;
                        finder->token_size = 0;
                        break;
                case '{':
                case '[':
                        open_container(finder, c);
                        break;
                case '}':
                case ']':
                        if (finder->depth > 0)
                                finder->depth--;
                        break;
                case ',':
                case ':':
                        if (at_level(finder))
                                finder->levels[finder->depth - 1].behind_colon = c == ':';
                        break;
                }
        }
}

bool control_id_finder_result(const ControlIdFinder *finder, uint64_t *ret) {
        const ControlIdLevel *level = &finder->levels[finder->levels[1].has_id ? 1 : 0];

        if (!finder->answer || !level->ours || finder->depth > 0 || finder->more)
                return false;

        *ret = level->number;
        return true;
}
