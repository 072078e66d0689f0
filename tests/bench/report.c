/* Collecting a benchmark's results and printing them. Must never print a number without what it was
 * measured against: ratios come from pairs of one round only. */
#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "tests/bench/report.h"
#include "tests/bench/stats.h"

#define MAX_ITEMS 64u

struct series {
    char name[64], unit[16];
    size_t message;
    unsigned n, cpus;
    double value[REPORT_MAX_ROUNDS];
    double cpu_server[REPORT_MAX_ROUNDS], cpu_client[REPORT_MAX_ROUNDS]; /* s per GB */
};

struct fact {
    char key[48], value[320];
};

struct distribution {
    char name[64];
    struct hist hist;
};

struct ratio {
    const struct series *subject, *baseline;
};

struct report {
    char name[32], title[160];
    struct fact facts[MAX_ITEMS];
    char caveats[MAX_ITEMS][400];
    struct series *series[MAX_ITEMS];
    struct distribution *distributions[MAX_ITEMS];
    struct ratio ratios[MAX_ITEMS];
    unsigned n_facts, n_caveats, n_series, n_distributions, n_ratios;
};

static const double percentiles[] = {50, 90, 99, 99.9, 99.99};
#define PERCENTILES (sizeof(percentiles) / sizeof(percentiles[0]))

static void *need(void *p)
{
    if (!p) {
        (void)fputs("embar bench: out of memory\n", stderr);
        abort();
    }
    return p;
}

struct report *report_new(const char *name, const char *title)
{
    struct report *r = need(calloc(1, sizeof(*r)));
    (void)snprintf(r->name, sizeof(r->name), "%s", name);
    (void)snprintf(r->title, sizeof(r->title), "%s", title);
    return r;
}

void report_free(struct report *r)
{
    if (!r)
        return;
    for (unsigned i = 0; i < r->n_series; i++)
        free(r->series[i]);
    for (unsigned i = 0; i < r->n_distributions; i++)
        free(r->distributions[i]);
    free(r);
}

void report_fact(struct report *r, const char *key, const char *fmt, ...)
{
    if (r->n_facts == MAX_ITEMS)
        return;
    struct fact *f = &r->facts[r->n_facts++];
    va_list args;
    va_start(args, fmt);
    (void)snprintf(f->key, sizeof(f->key), "%s", key);
    (void)vsnprintf(f->value, sizeof(f->value), fmt, args);
    va_end(args);
}

void report_caveat(struct report *r, const char *fmt, ...)
{
    if (r->n_caveats == MAX_ITEMS)
        return;
    va_list args;
    va_start(args, fmt);
    (void)vsnprintf(r->caveats[r->n_caveats], sizeof(r->caveats[0]), fmt, args);
    va_end(args);
    r->n_caveats++;
}

static void processor(char *text, size_t size)
{
    FILE *f = fopen("/proc/cpuinfo", "re");
    char line[256];
    (void)snprintf(text, size, "unknown processor");
    while (f && fgets(line, sizeof(line), f)) {
        char *colon = strchr(line, ':');
        if (strncmp(line, "model name", 10) != 0 || !colon)
            continue;
        line[strcspn(line, "\n")] = '\0';
        (void)snprintf(text, size, "%s", colon + 2);
        break;
    }
    if (f)
        (void)fclose(f);
}

void report_machine(struct report *r)
{
    struct utsname u;
    char cpu[128];
    double load[1] = {0};
    processor(cpu, sizeof(cpu));
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    report_fact(r, "machine", "%ld cores, %s", cores, cpu);
    if (uname(&u) == 0)
        report_fact(r, "kernel", "%s %s", u.sysname, u.release);
    if (getloadavg(load, 1) == 1) {
        report_fact(r, "load before", "%.2f", load[0]);
        if (load[0] > 0.3)
            report_caveat(r,
                          "The machine was not quiet: its load average was %.2f before the first "
                          "round. Ratios of interleaved pairs hold better than absolute figures.",
                          load[0]);
    }
}

struct series *report_series(struct report *r, const char *name, const char *unit, size_t message)
{
    if (r->n_series == MAX_ITEMS)
        abort(); /* our own tables are shorter */
    struct series *s = need(calloc(1, sizeof(*s)));
    (void)snprintf(s->name, sizeof(s->name), "%s", name);
    (void)snprintf(s->unit, sizeof(s->unit), "%s", unit);
    s->message = message;
    r->series[r->n_series++] = s;
    return s;
}

void series_add(struct series *s, double value)
{
    if (s->n < REPORT_MAX_ROUNDS)
        s->value[s->n++] = value;
}

void series_add_load(struct series *s, const struct load_result *result)
{
    double gb = (double)result->bytes / 1e9;
    if (s->n >= REPORT_MAX_ROUNDS)
        return;
    s->cpu_server[s->n] = gb > 0 ? result->cpu_server / gb : NAN;
    s->cpu_client[s->n] = gb > 0 ? result->cpu_client / gb : NAN;
    s->cpus = s->n + 1;
    series_add(s, result->seconds > 0 ? gb / result->seconds : NAN);
}

void report_distribution(struct report *r, const char *name, const struct hist *h)
{
    if (r->n_distributions == MAX_ITEMS)
        abort(); /* our own tables are shorter */
    struct distribution *d = need(calloc(1, sizeof(*d)));
    (void)snprintf(d->name, sizeof(d->name), "%s", name);
    d->hist = *h;
    r->distributions[r->n_distributions++] = d;
}

void report_ratio(struct report *r, const struct series *subject, const struct series *baseline)
{
    if (r->n_ratios < MAX_ITEMS)
        r->ratios[r->n_ratios++] = (struct ratio){subject, baseline};
}

static struct stats ratio_stats(const struct ratio *ratio)
{
    double values[REPORT_MAX_ROUNDS];
    unsigned n = ratio->subject->n < ratio->baseline->n ? ratio->subject->n : ratio->baseline->n;
    stats_ratios(ratio->subject->value, ratio->baseline->value, n, values);
    return stats_of(values, n);
}

/* ---- For people --------------------------------------------------------------------------- */

static void print_series(const struct report *r, FILE *out)
{
    if (r->n_series == 0)
        return;
    fprintf(out, "\n%-34s %9s %17s %6s  %s\n", "", "median", "interquartile", "rounds",
            "core-s/GB server + client");
    for (unsigned i = 0; i < r->n_series; i++) {
        const struct series *s = r->series[i];
        struct stats st = stats_of(s->value, s->n);
        fprintf(out, "%-34s %9.3f  %7.3f..%-7.3f %6zu", s->name, st.median, st.q1, st.q3, st.n);
        if (s->cpus > 0) {
            double server = stats_of(s->cpu_server, s->cpus).median;
            double client = stats_of(s->cpu_client, s->cpus).median;
            if (server > 0)
                fprintf(out, "  %.3f + %.3f", server, client);
            else
                fprintf(out, "  %.3f (all)", client);
        }
        fprintf(out, "  %s", s->unit);
        if (s->message > 0)
            fprintf(out, ", %.3f M messages/s", st.median * 1e3 / (double)s->message);
        fputc('\n', out);
    }
}

static void print_distributions(const struct report *r, FILE *out)
{
    if (r->n_distributions == 0)
        return;
    fprintf(out, "\n%-44s %9s", "microseconds", "count");
    for (size_t p = 0; p < PERCENTILES; p++)
        fprintf(out, "  p%-7g", percentiles[p]);
    fprintf(out, "  max\n");
    for (unsigned i = 0; i < r->n_distributions; i++) {
        const struct distribution *d = r->distributions[i];
        fprintf(out, "%-44s %9llu", d->name, (unsigned long long)d->hist.count);
        for (size_t p = 0; p < PERCENTILES; p++)
            fprintf(out, "  %-8.1f", (double)hist_percentile(&d->hist, percentiles[p]) / 1e3);
        fprintf(out, "  %.1f\n", (double)d->hist.max / 1e3);
    }
}

static void print_human(const struct report *r, FILE *out)
{
    fprintf(out, "%s\n", r->title);
    for (unsigned i = 0; i < r->n_facts; i++)
        fprintf(out, "  %-14s %s\n", r->facts[i].key, r->facts[i].value);
    print_series(r, out);
    print_distributions(r, out);
    if (r->n_ratios > 0)
        fprintf(out, "\n%-58s %9s %17s %17s\n", "ratio within each round", "median",
                "95 % interval", "interquartile");
    for (unsigned i = 0; i < r->n_ratios; i++) {
        struct stats st = ratio_stats(&r->ratios[i]);
        char name[160];
        (void)snprintf(name, sizeof(name), "%s / %s", r->ratios[i].subject->name,
                       r->ratios[i].baseline->name);
        fprintf(out, "%-58s %9.3f  %7.3f..%-7.3f  %7.3f..%-7.3f\n", name, st.median, st.low,
                st.high, st.q1, st.q3);
    }
    if (r->n_caveats > 0)
        fprintf(out, "\nTo be read with these in mind:\n");
    for (unsigned i = 0; i < r->n_caveats; i++)
        fprintf(out, "- %s\n", r->caveats[i]);
}

/* ---- For programs ------------------------------------------------------------------------- */

static json_t *real(double v)
{
    return isfinite(v) ? json_real(v) : json_null();
}

static void set_stats(json_t *o, const struct stats *st)
{
    json_object_set_new(o, "rounds", json_integer((json_int_t)st->n));
    json_object_set_new(o, "median", real(st->median));
    json_object_set_new(o, "q1", real(st->q1));
    json_object_set_new(o, "q3", real(st->q3));
    json_object_set_new(o, "low", real(st->low));
    json_object_set_new(o, "high", real(st->high));
    json_object_set_new(o, "min", real(st->min));
    json_object_set_new(o, "max", real(st->max));
}

static json_t *series_json(const struct series *s)
{
    json_t *o = json_object();
    json_t *values = json_array();
    struct stats st = stats_of(s->value, s->n);
    json_object_set_new(o, "name", json_string(s->name));
    json_object_set_new(o, "unit", json_string(s->unit));
    set_stats(o, &st);
    for (unsigned i = 0; i < s->n; i++)
        json_array_append_new(values, real(s->value[i]));
    json_object_set_new(o, "values", values);
    if (s->message > 0)
        json_object_set_new(o, "messages_per_second", real(st.median * 1e9 / (double)s->message));
    if (s->cpus > 0) {
        json_object_set_new(o, "cpu_server_s_per_gb",
                            real(stats_of(s->cpu_server, s->cpus).median));
        json_object_set_new(o, "cpu_client_s_per_gb",
                            real(stats_of(s->cpu_client, s->cpus).median));
    }
    return o;
}

static json_t *distribution_json(const struct distribution *d)
{
    json_t *o = json_object();
    json_object_set_new(o, "name", json_string(d->name));
    json_object_set_new(o, "unit", json_string("ns"));
    json_object_set_new(o, "count", json_integer((json_int_t)d->hist.count));
    json_object_set_new(o, "mean", real(hist_mean(&d->hist)));
    json_object_set_new(o, "min", json_integer((json_int_t)d->hist.min));
    json_object_set_new(o, "max", json_integer((json_int_t)d->hist.max));
    for (size_t i = 0; i < PERCENTILES; i++) {
        char key[16];
        (void)snprintf(key, sizeof(key), "p%g", percentiles[i]);
        json_object_set_new(o, key,
                            json_integer((json_int_t)hist_percentile(&d->hist, percentiles[i])));
    }
    return o;
}

static json_t *report_json(const struct report *r)
{
    json_t *o = json_object();
    json_t *facts = json_object();
    json_t *caveats = json_array();
    json_t *series = json_array();
    json_t *distributions = json_array();
    json_t *ratios = json_array();
    for (unsigned i = 0; i < r->n_facts; i++)
        json_object_set_new(facts, r->facts[i].key, json_string(r->facts[i].value));
    for (unsigned i = 0; i < r->n_caveats; i++)
        json_array_append_new(caveats, json_string(r->caveats[i]));
    for (unsigned i = 0; i < r->n_series; i++)
        json_array_append_new(series, series_json(r->series[i]));
    for (unsigned i = 0; i < r->n_distributions; i++)
        json_array_append_new(distributions, distribution_json(r->distributions[i]));
    for (unsigned i = 0; i < r->n_ratios; i++) {
        json_t *ratio = json_object();
        struct stats st = ratio_stats(&r->ratios[i]);
        json_object_set_new(ratio, "subject", json_string(r->ratios[i].subject->name));
        json_object_set_new(ratio, "baseline", json_string(r->ratios[i].baseline->name));
        set_stats(ratio, &st);
        json_array_append_new(ratios, ratio);
    }
    json_object_set_new(o, "bench", json_string(r->name));
    json_object_set_new(o, "title", json_string(r->title));
    json_object_set_new(o, "facts", facts);
    json_object_set_new(o, "series", series);
    json_object_set_new(o, "distributions", distributions);
    json_object_set_new(o, "ratios", ratios);
    json_object_set_new(o, "caveats", caveats);
    return o;
}

int report_print(const struct report *r, bool json, FILE *out)
{
    errno = 0;
    if (json) {
        json_t *o = report_json(r);
        int rc = json_dumpf(o, out, JSON_INDENT(2));
        json_decref(o);
        if (rc == 0)
            fputc('\n', out);
    } else {
        print_human(r, out);
    }
    if (fflush(out) != 0 || ferror(out))
        return errno ? -errno : -EIO;
    return 0;
}
