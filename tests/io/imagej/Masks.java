import ij.gui.Roi;
import ij.io.RoiDecoder;
import ij.process.ByteProcessor;
import java.io.BufferedOutputStream;
import java.io.FileInputStream;
import java.io.FileOutputStream;
import java.io.OutputStream;
import java.util.zip.ZipEntry;
import java.util.zip.ZipInputStream;

/** Masks ZIP WIDTH HEIGHT OUT: fills every ROI of a zip into a plane of bytes of its own, and prints what it is. */
public class Masks {
    public static void main(String[] args) throws Exception {
        int width = Integer.parseInt(args[1]), height = Integer.parseInt(args[2]);
        try (ZipInputStream in = new ZipInputStream(new FileInputStream(args[0]));
                OutputStream out = new BufferedOutputStream(new FileOutputStream(args[3]))) {
            for (ZipEntry entry = in.getNextEntry(); entry != null; entry = in.getNextEntry()) {
                Roi roi = new RoiDecoder(in.readAllBytes(), entry.getName()).getRoi();
                ByteProcessor plane = new ByteProcessor(width, height);
                plane.setValue(1);
                plane.fill(roi);
                out.write((byte[]) plane.getPixels());
                System.out.println(roi.getName() + " " + roi.getTypeAsString());
            }
        }
    }
}
