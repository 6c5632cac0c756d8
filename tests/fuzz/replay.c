#include <dirent.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

#include "fuzz.h"

/* Runs the fuzz target that it is linked with over all files of the folders given as arguments. */

static void replay_file(const char *path) {
        uint8_t *data;
        FILE *file;
        long size;

        file = fopen(path, "re");
        if (!file || fseek(file, 0, SEEK_END) < 0 || (size = ftell(file)) < 0) {
                perror(path);
                exit(EXIT_FAILURE);
        }

        /* Of exactly that size, so that reading past the end shows */
        rewind(file);
        data = malloc(size);
        if ((!data && size > 0) || fread(data, 1, size, file) != (size_t)size) {
                perror(path);
                exit(EXIT_FAILURE);
        }
        (void)fclose(file);

        /* If it aborts, this is the last line. */
        fprintf(stderr, "%s\n", path);
        (void)LLVMFuzzerTestOneInput(data, size);
        free(data);
}

static unsigned replay_folder(const char *folder) {
        struct dirent *entry;
        unsigned n = 0;
        DIR *dir;

        dir = opendir(folder);
        if (!dir) {
                perror(folder);
                exit(EXIT_FAILURE);
        }

        while ((entry = readdir(dir))) {
                char path[PATH_MAX];

                if (entry->d_name[0] == '.')
                        continue;
                if (snprintf(path, sizeof(path), "%s/%s", folder, entry->d_name) >= (int)sizeof(path))
                        exit(EXIT_FAILURE);
                replay_file(path);
                n++;
        }

        (void)closedir(dir);
        return n;
}

int main(int argc, char *argv[]) {
        unsigned n = 0;

        for (int i = 1; i < argc; i++)
                n += replay_folder(argv[i]);

        fprintf(stderr, "%u inputs\n", n);
        return n > 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
