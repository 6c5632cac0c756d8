#include "wire/id-finder.h"

#include <string.h>

#include "base/macro.h"

enum { KEY_OTHER, KEY_ID, KEY_METHOD, KEY_RESULT, KEY_ERROR, KEY_TYPE, KEY_RESPONSE, KEY_REQUEST_ID };

static bool token_is(const IdFinder *finder, const char *word) {
        return finder->token_size == strlen(word) && memcmp(finder->token, word, finder->token_size) == 0;
}

/* The levels that count: the line's members, and those of its member response */
static IdFinderLevel *level_of(IdFinder *finder) {
        if (finder->depth == 1 || (finder->depth == 2 && finder->in_response))
                return &finder->levels[finder->depth - 1];

        return NULL;
}

static void key_done(IdFinder *finder, IdFinderLevel *level) {
        static const char *const keys[] = {
                [KEY_ID] = "\"id\"",       [KEY_METHOD] = "\"method\"", [KEY_RESULT] = "\"result\"",
                [KEY_ERROR] = "\"error\"", [KEY_TYPE] = "\"type\"",     [KEY_RESPONSE] = "\"response\"",
        };

        level->key = KEY_OTHER;
        if (token_is(finder, "\"request_id\""))
                level->key = KEY_REQUEST_ID;
        for (unsigned key = KEY_ID; key < ELEMENTSOF(keys) && level == &finder->levels[0]; key++)
                if (token_is(finder, keys[key]))
                        level->key = key;

        switch (level->key) {
        case KEY_ID:
                finder->id_size = 0;
                break;
        case KEY_METHOD:
                finder->has_method = true;
                break;
        case KEY_RESULT:
        case KEY_ERROR:
                finder->has_outcome = true;
                break;
        case KEY_TYPE:
                finder->control_response = false;
                break;
        case KEY_RESPONSE:
                finder->levels[1] = (IdFinderLevel){};
                break;
        case KEY_REQUEST_ID:
                level->has_request_id = true;
                level->request_id_size = 0;
                break;
        }
}

static void value_done(IdFinder *finder, IdFinderLevel *level) {
        if (finder->token_size > sizeof(finder->token))
                return;

        switch (level->key) {
        case KEY_ID:
                finder->id_size = finder->token_size;
                memcpy(finder->id, finder->token, finder->id_size);
                break;
        case KEY_TYPE:
                finder->control_response = token_is(finder, "\"control_response\"");
                break;
        case KEY_REQUEST_ID:
                level->request_id_size = finder->token_size <= sizeof(level->request_id) ? finder->token_size : 0;
                memcpy(level->request_id, finder->token, level->request_id_size);
                break;
        }
}

static void token_add(IdFinder *finder, char c) {
        if (finder->token_size < sizeof(finder->token))
                finder->token[finder->token_size] = c;
        if (finder->token_size <= sizeof(finder->token))
                finder->token_size++;
}

static void feed_in_string(IdFinder *finder, IdFinderLevel *level, char c) {
        if (level)
                token_add(finder, c);

        if (finder->escaped)
                finder->escaped = false;
        else if (c == '\\')
                finder->escaped = true;
        else if (c == '"') {
                finder->in_string = false;
                if (level && !level->behind_colon)
                        key_done(finder, level);
        }
}

static void open_container(IdFinder *finder, IdFinderLevel *level, char c) {
        finder->depth++;
        if (!level)
                return;

        if (finder->depth == 2)
                finder->in_response = c == '{' && level->behind_colon && level->key == KEY_RESPONSE;
        level->key = KEY_OTHER; /* no value of any of the others */
}

static void member_done(IdFinder *finder, IdFinderLevel *level) {
        if (!level)
                return;

        if (level->behind_colon)
                value_done(finder, level);
        level->behind_colon = false;
        level->key = KEY_OTHER;
}

void id_finder_feed(IdFinder *finder, const char *data, size_t size) {
        for (size_t i = 0; i < size; i++) {
                IdFinderLevel *level = level_of(finder);
                char c = data[i];

                if (finder->in_string) {
                        feed_in_string(finder, level, c);
                        continue;
                }
                if (memchr(" \t\r\n", c, 4))
                        continue;

                if (finder->depth == 0) {
                        finder->more = finder->more || finder->began || c != '{';
                        finder->began = true;
                }

                switch (c) {
                case '"':
                        finder->in_string = true;
                        finder->token_size = 0;
                        if (level)
                                token_add(finder, c);
                        break;
                case '{':
                case '[':
                        open_container(finder, level, c);
                        break;
                case '}':
                case ']':
                        member_done(finder, level);
                        if (finder->depth > 0)
                                finder->depth--;
                        break;
                case ',':
                        member_done(finder, level);
                        break;
                case ':':
                        if (level) {
                                level->behind_colon = true;
                                finder->token_size = 0;
                        }
                        break;
                default:
                        if (level)
                                token_add(finder, c);
                }
        }
}

bool id_finder_whole(const IdFinder *finder) {
        return finder->began && finder->depth == 0 && !finder->more;
}
