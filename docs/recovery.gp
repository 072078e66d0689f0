# Draws docs/recovery.svg:
#   embar bench recovery --rounds 5 --data recovery.dat
#   gnuplot docs/recovery.gp
set terminal svg size 640,420 font "sans,12" background "white"
set output "docs/recovery.svg"
set title "Opening a pool, one thread, processor time beyond mapping"
set xlabel "batches"
set ylabel "seconds"
set logscale xy
set format x "10^{%L}"
set format y "10^{%L}"
set grid
set key left top
set style data linespoints
plot "< awk '!/^#/ && $2 == 1 { n[$1]++; s[$1] += $3 } END { for (b in n) print b, s[b] / n[b] }' recovery.dat | sort -n" \
         title "killed, nothing adjacent" pt 7, \
     "< awk '!/^#/ && $2 == 0 { n[$1]++; s[$1] += $3 } END { for (b in n) print b, s[b] / n[b] }' recovery.dat | sort -n" \
         title "killed, one publisher a topic" pt 7, \
     "< awk '!/^#/ && $2 == 1 { n[$1]++; s[$1] += $4 } END { for (b in n) print b, s[b] / n[b] }' recovery.dat | sort -n" \
         title "fresh checkpoint, nothing adjacent" pt 5, \
     "< awk '!/^#/ && $2 == 0 { n[$1]++; s[$1] += $4 } END { for (b in n) print b, s[b] / n[b] }' recovery.dat | sort -n" \
         title "fresh checkpoint, one publisher a topic" pt 5
