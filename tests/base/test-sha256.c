#include "base/sha256.h"
#include "unit.h"

static void check(const char *text, size_t times, const char *wanted) {
        char hex[SHA256_HEX_SIZE];
        Sha256 hash;

        sha256_init(&hash);
        for (size_t i = 0; i < times; i++)
                sha256_feed(&hash, text, strlen(text));
        sha256_finish(&hash, hex);
        assert_string(hex, wanted);
}

/* The examples of FIPS 180-4 and its test vectors */
static void test_known_digests(void) {
        check("", 1, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        check("abc", 1, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        check("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", 1,
              "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
        check("a", 1000000, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

/* However the bytes come, the digest is the same. */
static void test_pieces(void) {
        char text[300], whole[SHA256_HEX_SIZE], pieces[SHA256_HEX_SIZE];
        Sha256 hash;

        for (size_t i = 0; i < sizeof(text); i++)
                text[i] = (char)(i * 7);

        for (size_t size = 0; size <= sizeof(text); size++) {
                sha256_init(&hash);
                sha256_feed(&hash, text, size);
                sha256_finish(&hash, whole);

                sha256_init(&hash);
                for (size_t i = 0; i < size; i += 13)
                        sha256_feed(&hash, text + i, size - i < 13 ? size - i : 13);
                sha256_finish(&hash, pieces);
                assert_string(pieces, whole);
        }
}

int main(void) {
        test_known_digests();
        test_pieces();
        return 0;
}
