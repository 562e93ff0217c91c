import ij.gui.EllipseRoi;
import ij.gui.Line;
import ij.gui.OvalRoi;
import ij.gui.PointRoi;
import ij.gui.PolygonRoi;
import ij.gui.Roi;
import ij.gui.RotatedRectRoi;
import ij.gui.ShapeRoi;
import ij.gui.TextRoi;
import ij.io.RoiEncoder;
import java.io.ByteArrayOutputStream;
import java.io.FileOutputStream;
import java.util.zip.ZipEntry;
import java.util.zip.ZipOutputStream;

/** Kinds AREAS OTHERS: writes ROIs of all kinds into two zips, those that surround an area and the others. */
public class Kinds {
    private static void add(ZipOutputStream out, String name, Roi roi) throws Exception {
        roi.setName(name);
        ByteArrayOutputStream bytes = new ByteArrayOutputStream();
        new RoiEncoder(bytes).write(roi);
        out.putNextEntry(new ZipEntry(name + ".roi"));
        out.write(bytes.toByteArray());
        out.closeEntry();
    }

    private static Roi rounded(Roi roi, int diameter) {
        roi.setCornerDiameter(diameter);
        return roi;
    }

    private static PolygonRoi polygon(int type, float... points) {
        float[] x = new float[points.length / 2], y = new float[points.length / 2];
        for (int i = 0; i < x.length; i++) {
            x[i] = points[2 * i];
            y[i] = points[2 * i + 1];
        }
        return new PolygonRoi(x, y, x.length, type);
    }

    public static void main(String[] args) throws Exception {
        float[] whole = {5, 6, 40, 3, 55, 30, 30, 55, 8, 40};
        float[] broken = {5.3f, 6.6f, 40.2f, 3.2f, 55.6f, 30.4f, 30.1f, 55.5f, 8.9f, 40.1f};
        try (ZipOutputStream out = new ZipOutputStream(new FileOutputStream(args[0]))) {
            add(out, "rectangle", new Roi(3, 4, 20, 11));
            add(out, "rounded", rounded(new Roi(3, 4, 30, 21), 12));
            add(out, "oval", new OvalRoi(5, 6, 31, 18));
            add(out, "rectangle between pixels", new Roi(5.3, 6.6, 30.2, 18.7));
            add(out, "oval between pixels", new OvalRoi(5.3, 6.6, 30.2, 18.7));
            add(out, "ellipse", new EllipseRoi(8, 8, 50, 30, 0.6));
            add(out, "rotated", new RotatedRectRoi(8, 8, 50, 30, 14));
            add(out, "polygon", polygon(Roi.POLYGON, whole));
            add(out, "polygon between pixels", polygon(Roi.POLYGON, broken));
            add(out, "freehand", polygon(Roi.FREEROI, broken));
            add(out, "traced", polygon(Roi.TRACED_ROI, 5, 5, 20, 5, 20, 20, 12, 20, 12, 9, 5, 9));
            add(out, "ring", new ShapeRoi(new OvalRoi(5, 5, 40, 40)).xor(new ShapeRoi(new OvalRoi(15, 15, 12, 16))));
            add(out, "parts", new ShapeRoi(new Roi(2, 2, 9, 9)).or(new ShapeRoi(new OvalRoi(30, 30, 20, 14))));
            PolygonRoi spline = polygon(Roi.POLYGON, whole);
            spline.fitSpline();
            add(out, "spline", spline);
        }
        try (ZipOutputStream out = new ZipOutputStream(new FileOutputStream(args[1]))) {
            add(out, "point", new PointRoi(7, 7));
            add(out, "line", new Line(3, 3, 40, 30));
            add(out, "bent", polygon(Roi.POLYLINE, whole));
            add(out, "scribble", polygon(Roi.FREELINE, whole));
            add(out, "angle", polygon(Roi.ANGLE, 3, 3, 20, 20, 40, 3));
            add(out, "text", new TextRoi(4, 4, "a note"));
        }
    }
}
